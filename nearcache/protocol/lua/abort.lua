-- Give a lease back, and tell who waits.
-- KEYS: l, channel.  ARGV: token, names.
local holder = redis.call('GET', KEYS[1])
if holder and string.byte(holder) ~= 68 and string.sub(holder, 2) == ARGV[1] then -- 68: D, a hold
    redis.call('DEL', KEYS[1])
    if string.byte(holder) == 87 then -- 87: W, somebody waits
        redis.call('PUBLISH', KEYS[2], struct.pack('>BB', 1, 70) .. ARGV[2]) -- 70: F
    end
end
return 1
