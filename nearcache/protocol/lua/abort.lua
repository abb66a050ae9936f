-- Give a lease back, and tell who waits.
-- KEYS: m, channel, l.  ARGV: token, names.
-- Answers: 1: the lease was ours to the end, so nothing was written since it was given | 0.
local found = holder(KEYS[3])
if not found or string.byte(found) == 68 or string.sub(found, 2) ~= ARGV[1] then return 0 end -- 68: D, a hold
redis.call('DEL', KEYS[3])
if string.byte(found) == 87 then -- 87: W, somebody waits
    redis.call('PUBLISH', KEYS[2], struct.pack('>BB', 1, 70) .. ARGV[2]) -- 70: F
end
return 1
