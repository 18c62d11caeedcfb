"""Read by gunicorn from its working directory. The address to listen on belongs to the unit: --bind."""

worker_class = "gthread"
workers = 2
# More than storefront.store.SLOTS: whatever the database does, a thread stays free for /healthz.
threads = 32
# Longer than HAProxy keeps an idle connection, so that it is never us who closes one under a request.
keepalive = 75
timeout = 30
graceful_timeout = 15
