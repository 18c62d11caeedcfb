CREATE TABLE products (
    id int PRIMARY KEY,
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    category text NOT NULL,
    description text NOT NULL,
    price_cents int NOT NULL CHECK (price_cents > 0),
    stock int NOT NULL CHECK (stock >= 0)
) WITH (fillfactor = 50);  -- stock changes all the time: room for the new row version on the same page

CREATE TABLE orders (
    id uuid PRIMARY KEY,
    idempotency_key text NOT NULL UNIQUE,
    fingerprint text NOT NULL,
    attempts int NOT NULL DEFAULT 1,
    status text NOT NULL DEFAULT 'received',
    name text NOT NULL,
    email text NOT NULL,
    address text NOT NULL,
    note text NOT NULL,
    total_cents bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A copy of what was sold, not a reference: an order outlives the catalogue, and takes no lock on it.
CREATE TABLE order_lines (
    order_id uuid NOT NULL REFERENCES orders,
    slug text NOT NULL,
    name text NOT NULL,
    quantity int NOT NULL CHECK (quantity > 0),
    price_cents int NOT NULL,
    PRIMARY KEY (order_id, slug)
);

CREATE TABLE readiness (
    node text PRIMARY KEY,
    checked_at timestamptz NOT NULL DEFAULT now()
);
