-- Delete values under one number and tell everybody. DEL comes first, so that it passes when memory is full.
-- KEYS: m, channel, then per value: v, l.  ARGV: names.
-- Answers: number, created (8 bytes each).
for i = 3, #KEYS, 2 do
    redis.call('DEL', KEYS[i])
    local holder = redis.call('GET', KEYS[i + 1])
    if holder and string.byte(holder) ~= 68 then redis.call('DEL', KEYS[i + 1]) end -- 68: D, a hold, stays
end
local created = now()
local s = bump(KEYS[1], created)
redis.call('PUBLISH', KEYS[2], struct.pack('>BBI8', 1, 73, s) .. ARGV[1]) -- 73: I
return struct.pack('>I8I8', s, created)
