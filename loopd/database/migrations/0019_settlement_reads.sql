-- The own bids on a subject of another city: one of them pays for a sale.
CREATE INDEX made_bid_by_subject ON made_bid (subject, owner, number);
-- The settlements with a peer, which is the side that this node is not, in the order of the books.
CREATE INDEX clearing_settlement_of_peer ON clearing_settlement
    (CASE side WHEN 'payer' THEN payee_node ELSE payer_node END, number);
