-- Delete values under one number and tell everybody. DEL comes first, so that it passes when memory is full.
-- KEYS: m, channel, then per value: v, l.
-- ARGV: names, hold ms (0: none), and the server's microseconds until which nothing is done.
-- Answers: number, created (8 bytes each) | nil: too early.
local created = now()
if created <= tonumber(ARGV[3]) then return false end
local hold = tonumber(ARGV[2])
for i = 3, #KEYS, 2 do
    redis.call('DEL', KEYS[i])
    local l = KEYS[i + 1]
    local holder = redis.call('GET', l)
    local held = holder and string.byte(holder) == 68 -- 68: D, a hold; the longer one stays
    if hold > 0 and not (held and redis.call('PTTL', l) >= hold) then
        redis.call('SET', l, 'D', 'PX', ARGV[2])
    elseif holder and not held then
        redis.call('DEL', l)
    end
end
local s = bump(KEYS[1], created)
redis.call('PUBLISH', KEYS[2], struct.pack('>BBI8', 1, 73, s) .. ARGV[1]) -- 73: I
return struct.pack('>I8I8', s, created)
