from django.db import models


class Account(models.Model):
    name = models.TextField(primary_key=True)
    money = models.IntegerField()
