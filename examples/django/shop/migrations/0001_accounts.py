from django.db import migrations, models


def open_accounts(apps, _):
    account = apps.get_model("shop", "Account")
    account.objects.create(name="ann", money=10)
    account.objects.create(name="bob", money=0)


class Migration(migrations.Migration):
    operations = [
        migrations.CreateModel(
            "Account",
            [
                ("name", models.TextField(primary_key=True, serialize=False)),
                ("money", models.IntegerField()),
            ],
        ),
        migrations.RunPython(open_accounts, migrations.RunPython.noop),
    ]
