"""Of the example's tests. Which database it is, conftest.py says for each."""

SECRET_KEY = "of an example"
INSTALLED_APPS = ["shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql"}}
USE_TZ = True
