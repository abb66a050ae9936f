-- Try every right that the scripts and reads need, on a scratch name and on the channel: the message is a probe, which changes
-- nothing and comes back to its sender.
-- KEYS: m, channel, scratch.  ARGV: message.
-- Answers: an error, if one of them is missing; OK.
local m, channel, x = KEYS[1], KEYS[2], KEYS[3]
local tries = {
    { 'TIME' }, { 'DEL', x }, { 'HINCRBY', x, 's', 1 }, { 'HSET', x, 'f', 1 }, { 'HMGET', x, 's', 'f' }, { 'DEL', x },
    { 'SET', x, 'L', 'PX', 1000 }, { 'GET', x }, { 'MGET', x }, { 'GETRANGE', x, 0, 28 }, { 'SETRANGE', x, 0, 'D' },
    { 'PTTL', x }, { 'PEXPIRE', x, 1000, 'GT' }, { 'DEL', x }, { 'HMGET', m, 's', 'f' },
    { 'PUBLISH', channel, ARGV[1] },
}
for _, try in ipairs(tries) do
    local answer = redis.pcall(unpack(try))
    if type(answer) == 'table' and answer.err then
        local code, reason = string.match(answer.err, '^(%S+) ?(.*)$')
        return redis.error_reply(string.format('%s %s was refused: %s', code, try[1], reason))
    end
end
return redis.status_reply('OK')
