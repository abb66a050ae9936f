-- Tell a new bus where the counter stands; it is created if absent, else the first lease would look like a gap.
-- KEYS: m, meta.  ARGV: this protocol.
-- Answers: number, floor, server time in microseconds (8 bytes each), then the namespace's protocol.
redis.call('SET', KEYS[2], ARGV[1], 'NX')
local meta = redis.call('GET', KEYS[2])
if meta ~= ARGV[1] then return struct.pack('>I8I8I8', 0, 0, now()) .. meta end
local s, f = counters(KEYS[1])
return struct.pack('>I8I8I8', s, f, now()) .. meta
