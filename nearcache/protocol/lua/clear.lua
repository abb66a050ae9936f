-- Raise the namespace's floor, or some tags' floors, and tell everybody; it passes when memory is full.
-- KEYS: m, channel, scratch, then tags (none: the namespace).
-- ARGV: names, seen, the server's microseconds until which nothing is done, and 1 if values of the tags are only made
-- stale: then the floor below which they are dead stays, behind the new one.
-- Answers: number, created (8 bytes each) | nil: too early.
local seen, created = tonumber(ARGV[2]), now()
if created <= tonumber(ARGV[3]) then return false end
redis.call('DEL', KEYS[3])
local stale = ARGV[4] == '1'
local s, refused = tell(KEYS[1], KEYS[2], #KEYS == 3 and 67 or stale and 83 or 84, ARGV[1], seen) -- C, S or T
if refused then return refused end
local text = string.format('%.0f', s)
if #KEYS == 3 then redis.call('HSET', KEYS[1], 'f', text) end
-- A tag without a floor has no living values: absent means miss.
for n = 4, #KEYS do
    local _, dead = floor_of(KEYS[n], s)
    redis.call('SET', KEYS[n], stale and dead and text .. string.format(' %.0f', dead) or text, 'XX', 'KEEPTTL')
end
return struct.pack('>I8I8', s, created)
