-- Store a value under a number and tell everybody, unless there is one that has not ended and that the client has not
-- judged dead, or a hold.
-- KEYS: m, channel, v, l, then tags.
-- ARGV: names, seen, tag life ms, deadline (server microseconds), stale ms, how the dead record begins (empty: absent),
-- ttl ms, tail. A value is kept stale ms longer than it is fresh.
-- Answers: number, created (8 bytes each) | V: a value is there | D: a hold | L created: too late, nothing was done.
local seen, created = tonumber(ARGV[2]), now()
if created > tonumber(ARGV[4]) then return 'L' .. struct.pack('>I8', created) end
local hold, found = held(KEYS[4])
if hold then return 'D' end
local v = record_at(KEYS[3])
-- A client whose estimate of this clock is ahead takes a value for ended that lives yet: its end is judged here.
local ended = v and #v >= 25 and struct.unpack('>I8', v, 18) <= created
if alive(v, ARGV[6]) and not ended then return 'V' end
local s, refused = tell(KEYS[1], KEYS[2], 73, ARGV[1], seen) -- 73: I
if refused then return refused end
for n = 5, #KEYS do
    if floor_of(KEYS[n], s - 1) then
        redis.pcall('PEXPIRE', KEYS[n], ARGV[3], 'GT')
    else
        redis.call('SET', KEYS[n], string.format('%.0f', s - 1), 'PX', ARGV[3])
    end
end
if found then redis.call('DEL', KEYS[4]) end -- a lease: what its loader brings is older
redis.call('SET', KEYS[3], struct.pack('>BI8I8I8I4', 0xC2, s, created, created + ARGV[7] * 1000, 0) .. ARGV[8],
    'PX', ARGV[7] + ARGV[5])
return struct.pack('>I8I8', s, created)
