-- How many mails each relay took in each month, in UTC: for its monthly quota. Counted as outcomes are stored, since attempts are many.
CREATE TABLE usage (
    month TEXT    NOT NULL, -- 2026-03
    relay TEXT    NOT NULL,
    mails INTEGER NOT NULL,
    PRIMARY KEY (month, relay)
) STRICT, WITHOUT ROWID;
INSERT INTO usage
    SELECT strftime('%Y-%m', (started + took) / 1000000, 'unixepoch') AS month, relay, count(*) FROM attempts
    WHERE code BETWEEN 200 AND 299 AND month IS NOT NULL AND EXISTS (SELECT 1 FROM messages WHERE id = message AND state = 2)
        AND NOT EXISTS (SELECT 1 FROM attempts later WHERE later.message = attempts.message AND later.number > attempts.number)
    GROUP BY month, relay;
