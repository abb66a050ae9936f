-- Delete values and tell everybody, for callers without this library: docs/recipes.md. It is delete.lua with plain names.
-- KEYS: m, channel, then per value: v, l.  ARGV: the key of each value, as the library's users write it.
-- Answers: number, as a whole number.
if #KEYS ~= 2 + 2 * #ARGV then return redis.error_reply('ERR two names for m and channel, then two for each key') end
local names = ''
for n, key in ipairs(ARGV) do
    names = names .. struct.pack('>I2', #key) .. key
    redis.call('DEL', KEYS[1 + 2 * n])
    local hold, found = held(KEYS[2 + 2 * n])
    if found and not hold then redis.call('DEL', KEYS[2 + 2 * n]) end
end
local s, refused = tell(KEYS[1], KEYS[2], 73, names, 0) -- 73: I
return refused or s
