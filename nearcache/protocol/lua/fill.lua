-- Store a loaded value, if the lease is still ours and no floor has risen since it was given. Takes no number.
-- KEYS: v, l, m, channel, then tags.  ARGV: token, names, floor, ttl ms, tail, tag life ms, stale ms, then tag floors;
-- the floors as the lease gave them. A value is kept stale ms longer than it is fresh.
-- Answers: number, created (8 bytes each) | nil: refused. Whoever waits is told either way.
local holder = redis.call('GET', KEYS[2])
local mine = holder and string.byte(holder) ~= 68 and string.sub(holder, 2) == ARGV[1] -- 68: D, a hold
local m = redis.call('HMGET', KEYS[3], 's', 'f')
local s, f = tonumber(m[1]), tonumber(m[2])
local good = mine and s and f and f <= tonumber(ARGV[3])
for i = 5, #KEYS do
    local floor = good and tonumber(redis.call('GET', KEYS[i]) or nil)
    good = floor and floor <= tonumber(ARGV[i + 3])
end
local answer = false
if good then
    local created = now()
    redis.call('SET', KEYS[1],
        struct.pack('>BI8I8I8', 0xC2, s, created, created + ARGV[4] * 1000) .. ARGV[5],
        'PX', ARGV[4] + ARGV[7])
    for i = 5, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[6], 'GT') end
    answer = struct.pack('>I8I8', s, created)
end
if mine then
    redis.call('DEL', KEYS[2])
    if string.byte(holder) == 87 then -- 87: W, somebody waits
        redis.call('PUBLISH', KEYS[4], struct.pack('>BB', 1, 70) .. ARGV[2]) -- 70: F
    end
end
return answer
