"""gunicorn's entry is storefront.wsgi:app."""

import os
import sys
from functools import partial

from . import create_app
from .config import ConfigError, Settings
from .store import Store, connect

try:
    settings = Settings.from_env(os.environ)
except ConfigError as error:
    sys.stderr.write(f"storefront: {error}\n")
    sys.exit(3)  # gunicorn's own code for "can't boot": with any other it would start workers for ever
app = create_app(settings, Store(partial(connect, settings.database_url), settings.database_timeout))
