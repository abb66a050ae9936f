#!lua flags=allow-oom
-- Raise the namespace's floor, or some tags' floors, and tell everybody; allowed when memory is full.
-- KEYS: m, channel, then tags (none: the namespace).
-- ARGV: names, and the server's microseconds until which nothing is done.
-- Answers: number, created (8 bytes each) | nil: too early.
local created = now()
if created <= tonumber(ARGV[2]) then return false end
local s = bump(KEYS[1], created)
local text = string.format('%.0f', s)
local kind = 67 -- C
if #KEYS == 2 then
    redis.call('HSET', KEYS[1], 'f', text)
else
    kind = 84 -- T
    -- A tag without a floor has no living values: absent means miss.
    for i = 3, #KEYS do redis.call('SET', KEYS[i], text, 'XX', 'KEEPTTL') end
end
redis.call('PUBLISH', KEYS[2], struct.pack('>BBI8', 1, kind, s) .. ARGV[1])
return struct.pack('>I8I8', s, created)
