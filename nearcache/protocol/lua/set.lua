-- Store values under one number and tell everybody; after the deadline, delete them instead.
-- KEYS: m, channel, then per value: v, l; then tags.
-- ARGV: count, names, tag life ms, deadline (server microseconds), stale ms, then per value: ttl ms, tail. A value is
-- kept stale ms longer than it is fresh.
-- Answers: number, created (8 bytes each), and behind them L if it was late.
local count = tonumber(ARGV[1])
local created = now()
local late = created > tonumber(ARGV[4])
if late then -- DEL first, so that it passes when memory is full
    for i = 1, count do redis.call('DEL', KEYS[1 + 2 * i]) end
end
local s = bump(KEYS[1], created)
for i = 1, count do
    local ttl = ARGV[4 + 2 * i]
    if not late then
        redis.call('SET', KEYS[1 + 2 * i],
            struct.pack('>BI8I8I8', 0xC2, s, created, created + ttl * 1000) .. ARGV[5 + 2 * i],
            'PX', ttl + ARGV[5])
    end
    local l = KEYS[2 + 2 * i]
    local holder = redis.call('GET', l)
    if holder and string.byte(holder) ~= 68 then redis.call('DEL', l) end -- 68: D, a hold, stays
end
for i = 3 + 2 * count, late and 0 or #KEYS do
    if not redis.call('SET', KEYS[i], string.format('%.0f', s), 'NX', 'PX', ARGV[3]) then
        redis.call('PEXPIRE', KEYS[i], ARGV[3], 'GT')
    end
end
redis.call('PUBLISH', KEYS[2], struct.pack('>BBI8', 1, 73, s) .. ARGV[2]) -- 73: I
return struct.pack('>I8I8', s, created) .. (late and 'L' or '')
