-- Add to a counter under a number and tell everybody; one that is absent or dead begins at the initial number, with a ttl
-- that further calls leave alone. A counter has no tags, so that the script itself can judge it; nor has a number that was
-- set, which becomes a counter.
-- KEYS: m, channel, v, l.
-- ARGV: names, seen, deadline (server microseconds), delta, initial number (empty: none), ttl ms, how a record that is no
-- counter begins and was judged (empty: absent), the number that it holds, if it is alive (empty: it is dead).
-- Answers: number, created, the counter (8 bytes each) | V: a value that is no counter | A: absent, and there is no initial
-- number | R: the counter would leave its range | L created: too late, nothing was done.
local seen, created = tonumber(ARGV[2]), now()
if created > tonumber(ARGV[3]) then return 'L' .. struct.pack('>I8', created) end
local v = record_at(KEYS[3])
local counts = v and string.byte(v) == 0xC3 and #v == 38
local before = counts and struct.unpack('>i8', v, 31)
if v and not counts then
    if alive(v, ARGV[7]) then return 'V' end
    before = ARGV[7] ~= '' and ours(v) and tonumber(ARGV[8])
    counts = before and true
end
local m = redis.call('HMGET', KEYS[1], 's', 'f')
local s, f = whole(m[1]), whole(m[2])
local fresh_until = created + ARGV[6] * 1000
if counts then
    local number, _, ends = struct.unpack('>I8I8I8', v, 2)
    counts = s and f and f <= number and number <= s and s >= seen and created < ends
    fresh_until = counts and ends or fresh_until
end
before = counts and before or tonumber(ARGV[5])
if not before then return 'A' end
local after = before + ARGV[4]
if math.abs(after) >= 2 ^ 53 then return 'R' end
local hold, found = held(KEYS[4])
local refused
s, refused = tell(KEYS[1], KEYS[2], 73, ARGV[1], seen) -- 73: I
if refused then return refused end
if found and not hold then redis.call('DEL', KEYS[4]) end
local record = struct.pack('>BI8I8I8I4Bi8', 0xC3, s, created, fresh_until, 0, 0, after)
if counts then
    redis.call('SET', KEYS[3], record, 'KEEPTTL')
else
    redis.call('SET', KEYS[3], record, 'PX', ARGV[6])
end
return struct.pack('>I8I8i8', s, created, after)
