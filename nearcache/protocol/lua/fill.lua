-- Store a loaded value, if the lease is still ours and no floor has risen since it was given. Takes no number.
-- KEYS: m, channel, v, l, then tags.
-- ARGV: token, names, lease ms, floor, ttl ms, tail, tag life ms, stale ms, then tag floors; the floors as the lease gave
-- them. A value is kept stale ms longer than it is fresh. Its load time is the age of the lease: it began no earlier.
-- Answers: number, created (8 bytes each) | nil: refused. Whoever waits is told either way.
local found = holder(KEYS[4])
local mine = found and string.byte(found) ~= 68 and string.sub(found, 2) == ARGV[1] -- 68: D, a hold
local m = redis.pcall('HMGET', KEYS[1], 's', 'f')
local s, f = whole(m[1]), whole(m[2])
local good = mine and s and f and f <= tonumber(ARGV[4])
for n = 5, #KEYS do
    local floor = good and whole(redis.pcall('GET', KEYS[n]))
    good = floor and floor <= tonumber(ARGV[n + 4])
end
local answer = false
if good then
    local created = now()
    local age = math.min(math.max(ARGV[3] - redis.call('PTTL', KEYS[4]) + 1, 1), 2 ^ 32 - 1)
    redis.call('SET', KEYS[3],
        struct.pack('>BI8I8I8I4', 0xC2, s, created, created + ARGV[5] * 1000, age) .. ARGV[6],
        'PX', ARGV[5] + ARGV[8])
    for n = 5, #KEYS do redis.pcall('PEXPIRE', KEYS[n], ARGV[7], 'GT') end
    answer = struct.pack('>I8I8', s, created)
end
if mine then
    redis.call('DEL', KEYS[4])
    if string.byte(found) == 87 then -- 87: W, somebody waits
        redis.call('PUBLISH', KEYS[2], struct.pack('>BB', 1, 70) .. ARGV[2]) -- 70: F
    end
end
return answer
