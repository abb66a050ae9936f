-- Give the value that the client has judged alive a new ttl in place, and tell everybody. Its version stays, and so do its
-- stale window and a lease.
-- KEYS: m, channel, v, then its tags.
-- ARGV: names, seen, tag life ms, deadline (server microseconds), the head of the value, ttl ms.
-- Answers: number, created (8 bytes each) | C: by now there is another value, or none | L created: too late, nothing was done.
local seen, created = tonumber(ARGV[2]), now()
if created > tonumber(ARGV[4]) then return 'L' .. struct.pack('>I8', created) end
local head = redis.pcall('GETRANGE', KEYS[3], 0, 28)
if type(head) == 'table' and string.sub(head.err, 1, 9) ~= 'WRONGTYPE' then return head end
if #head < 29 or head ~= ARGV[5] then return 'C' end
local fresh_until = struct.unpack('>I8', head, 18)
if fresh_until <= created then return 'C' end
local window = math.max(redis.call('PTTL', KEYS[3]) - math.ceil((fresh_until - created) / 1000), 0)
local s, refused = tell(KEYS[1], KEYS[2], 73, ARGV[1], seen) -- 73: I
if refused then return refused end
-- A floor that has gone meanwhile is not made anew: the value has died with it.
for n = 4, #KEYS do redis.pcall('PEXPIRE', KEYS[n], ARGV[3] + window, 'GT') end
redis.call('SETRANGE', KEYS[3], 17, struct.pack('>I8', created + ARGV[6] * 1000))
redis.call('PEXPIRE', KEYS[3], ARGV[6] + window)
return struct.pack('>I8I8', s, created)
