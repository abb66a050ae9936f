-- Store a loaded value, if the lease is still ours and no floor has risen since it was given. Takes no number.
-- KEYS: m, channel, v, l, then tags.
-- ARGV: token, names, lease ms, number, floor, ttl ms, tail, tag life ms, stale ms, then tag floors; number and floors as
-- the lease gave them, 0 for a tag that the loader has added. A value is kept stale ms longer than it is fresh. Its load
-- time is the age of the lease: it began no earlier.
-- Answers: number, created (8 bytes each) | nil: refused. Whoever waits is told either way.
local found = holder(KEYS[4])
local mine = found and string.byte(found) ~= 68 and string.sub(found, 2) == ARGV[1] -- 68: D, a hold
local m = redis.pcall('HMGET', KEYS[1], 's', 'f')
local s, f = whole(m[1]), whole(m[2])
local may = mine and s and f and f <= tonumber(ARGV[5])
local good = may
for n = 5, #KEYS do
    local given, floor = tonumber(ARGV[n + 5]), may and floor_of(KEYS[n], s)
    if given == 0 then
        given = tonumber(ARGV[4])
        -- An invalidation since the lease may have found no floor to raise: a new one at s is above the lease's number if
        -- any write came since. The next load finds it there.
        if may and not floor then
            redis.call('SET', KEYS[n], string.format('%.0f', s), 'PX', ARGV[8])
            floor = s
        end
    end
    good = good and floor and floor <= given
end
local answer = false
if good then
    local created = now()
    local age = math.min(math.max(ARGV[3] - redis.call('PTTL', KEYS[4]) + 1, 1), 2 ^ 32 - 1)
    redis.call('SET', KEYS[3],
        struct.pack('>BI8I8I8I4', 0xC2, s, created, created + ARGV[6] * 1000, age) .. ARGV[7],
        'PX', ARGV[6] + ARGV[9])
    for n = 5, #KEYS do redis.pcall('PEXPIRE', KEYS[n], ARGV[8], 'GT') end
    answer = struct.pack('>I8I8', s, created)
end
if mine then
    redis.call('DEL', KEYS[4])
    if string.byte(found) == 87 then -- 87: W, somebody waits
        redis.call('PUBLISH', KEYS[2], struct.pack('>BB', 1, 70) .. ARGV[2]) -- 70: F
    end
end
return answer
