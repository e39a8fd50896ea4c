-- The paid attempts of one provider, by the time of their next look-up. An index of its own keeps the scans for unpaid
-- attempts, which begin at `due`, as short as they are.
CREATE INDEX recheck ON refunds (gateway, recheck_at)
