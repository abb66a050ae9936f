-- Store values under one number and tell everybody; after the deadline, delete them instead.
-- KEYS: m, channel, then per value: v, l; then tags.
-- ARGV: count, names, seen, tag life ms, deadline (server microseconds), stale ms, then per value: ttl ms, tail. A value
-- is kept stale ms longer than it is fresh.
-- Answers: number, created (8 bytes each), and behind them L if it was late.
local count, seen, created = tonumber(ARGV[1]), tonumber(ARGV[3]), now()
local late = created > tonumber(ARGV[5])
if late then -- DEL first, so that it passes when memory is full
    for n = 1, count do redis.call('DEL', KEYS[1 + 2 * n]) end
end
local s, refused = tell(KEYS[1], KEYS[2], 73, ARGV[2], seen) -- 73: I
if refused then return refused end
for n = 3 + 2 * count, late and 0 or #KEYS do
    if floor_of(KEYS[n], s - 1) then
        redis.pcall('PEXPIRE', KEYS[n], ARGV[4], 'GT')
    else
        redis.call('SET', KEYS[n], string.format('%.0f', s - 1), 'PX', ARGV[4])
    end
end
for n = 1, count do
    local v, l, ttl = KEYS[1 + 2 * n], KEYS[2 + 2 * n], ARGV[5 + 2 * n]
    local hold, found = held(l)
    if found and not hold then redis.call('DEL', l) end -- a lease: what its loader brings is older
    if not late then
        redis.call('SET', v, struct.pack('>BI8I8I8I4', 0xC2, s, created, created + ttl * 1000, 0) .. ARGV[6 + 2 * n],
            'PX', ttl + ARGV[6])
    end
end
return struct.pack('>I8I8', s, created) .. (late and 'L' or '')
