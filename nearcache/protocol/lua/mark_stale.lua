-- Make values dead in place under one number and tell everybody: they are fresh until 0; version and ttl stay.
-- KEYS: m, channel, scratch, then per value: v, l.  ARGV: names, seen.
-- Answers: number, created (8 bytes each).
local seen, created, marked = tonumber(ARGV[2]), now(), {}
redis.call('DEL', KEYS[3]) -- so that it passes when memory is full
for n = 4, #KEYS, 2 do
    local head = redis.pcall('GETRANGE', KEYS[n], 0, 28)
    if type(head) == 'table' and string.sub(head.err, 1, 9) ~= 'WRONGTYPE' then return head end -- a right is missing
    marked[n] = type(head) == 'string' and #head == 29 and ours(head)
    if not marked[n] then redis.call('DEL', KEYS[n]) end -- absent or none of ours
    local hold, found = held(KEYS[n + 1])
    if found and not hold then redis.call('DEL', KEYS[n + 1]) end
end
local s, refused = tell(KEYS[1], KEYS[2], 73, ARGV[1], seen) -- 73: I
if refused then return refused end
for n = 4, #KEYS, 2 do
    if marked[n] then redis.call('SETRANGE', KEYS[n], 17, string.rep('\0', 8)) end
end
return struct.pack('>I8I8', s, created)
