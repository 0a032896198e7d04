"""`ckd config`: what the configuration is, and what it could be."""

import click

from ckd.pipeline.commands import Request, requested


@click.command(name="config")
@click.option("--keys", is_flag=True, help="List every key with its type, default and meaning instead.")
@requested
def command(request: Request, keys: bool) -> None:
    """Print the effective configuration.

    As YAML: the file with all defaults and overrides filled in and all paths absolute, each key with its
    meaning.
    """
    from ckd.pipeline.config import reference

    click.echo(reference.key_table() if keys else reference.as_yaml(request.load()), nl=keys)
