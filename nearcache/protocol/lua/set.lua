-- Store values under one number and tell everybody; after the deadline, delete them instead.
-- KEYS: m, channel, then per value: v, l; then tags.
-- ARGV: names, numbers (8 bytes each: seen, tag life ms, deadline in server microseconds, stale ms), then per value:
-- ttl ms, tail. A value is kept stale ms longer than it is fresh.
-- Answers: number, created (8 bytes each), and behind them L if it was late.
local seen, life, deadline, stale = struct.unpack('>I8I8I8I8', ARGV[2])
local count, created = (#ARGV - 2) / 2, now()
local late = created > deadline
if late then -- DEL first, so that it passes when memory is full
    for n = 1, count do redis.call('DEL', KEYS[1 + 2 * n]) end
end
local s, refused = tell(KEYS[1], KEYS[2], 73, ARGV[1], seen) -- 73: I
if refused then return refused end
for n = 3 + 2 * count, late and 0 or #KEYS do
    if floor_of(KEYS[n], s - 1) then
        redis.pcall('PEXPIRE', KEYS[n], life, 'GT')
    else
        redis.call('SET', KEYS[n], string.format('%.0f', s - 1), 'PX', life)
    end
end
for n = 1, count do
    local v, l, ttl = KEYS[1 + 2 * n], KEYS[2 + 2 * n], ARGV[1 + 2 * n]
    local hold, found = held(l)
    if found and not hold then redis.call('DEL', l) end -- a lease: what its loader brings is older
    if not late then
        redis.call('SET', v, struct.pack('>BI8I8I8I4', 0xC2, s, created, created + ttl * 1000, 0) .. ARGV[2 + 2 * n],
            'PX', ttl + stale)
    end
end
return struct.pack('>I8I8', s, created) .. (late and 'L' or '')
