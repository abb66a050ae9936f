-- Delete values under one number and tell everybody. DEL comes first, so that it passes when memory is full.
-- KEYS: m, channel, then per value: v, l.
-- ARGV: names, seen, hold ms (0: none), the server's microseconds until which nothing is done, 1 to have the head.
-- Answers: number, created (8 bytes each), and behind them the head of the last value, if it was asked for and there was
-- one | nil: too early.
local seen, hold, created = tonumber(ARGV[2]), tonumber(ARGV[3]), now()
if created <= tonumber(ARGV[4]) then return false end
local head = ARGV[5] == '1' and redis.pcall('GETRANGE', KEYS[#KEYS - 1], 0, 28)
for n = 3, #KEYS, 2 do
    redis.call('DEL', KEYS[n])
    local l = KEYS[n + 1]
    local holds, found = held(l)
    local longer = hold > 0 and not (holds and redis.call('PTTL', l) >= hold) -- else the one that stands stays
    local set = longer and redis.pcall('SET', l, 'D', 'PX', ARGV[3])
    if found and not holds and (not set or set.err) then redis.call('DEL', l) end
end
local s, refused = tell(KEYS[1], KEYS[2], 73, ARGV[1], seen) -- 73: I
if refused then return refused end
return struct.pack('>I8I8', s, created) .. (type(head) == 'string' and head or '')
