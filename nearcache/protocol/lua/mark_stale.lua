#!lua flags=allow-oom
-- Make values dead in place under one number and tell everybody: they are fresh until 0; version and ttl stay.
-- KEYS: m, channel, then per value: v, l.  ARGV: names.
-- Answers: number, created (8 bytes each).
local created = now()
for i = 3, #KEYS, 2 do
    local head = redis.pcall('GETRANGE', KEYS[i], 0, 24)
    if type(head) == 'string' and #head == 25 and string.byte(head) == 0xC2 then
        redis.call('SETRANGE', KEYS[i], 17, string.rep('\0', 8))
    else -- absent or none of ours
        redis.call('DEL', KEYS[i])
    end
    local holder = redis.call('GET', KEYS[i + 1])
    if holder and string.byte(holder) ~= 68 then redis.call('DEL', KEYS[i + 1]) end -- 68: D, a hold, stays
end
local s = bump(KEYS[1], created)
redis.call('PUBLISH', KEYS[2], struct.pack('>BBI8', 1, 73, s) .. ARGV[1]) -- 73: I
return struct.pack('>I8I8', s, created)
