"""Raw files to corpus, end to end through real files."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from ckd.stages.prepare.address import CORPUS_FORMAT, corpus_address
from ckd.stages.prepare.prepare import prepare_domain
from ckd.stages.prepare.settings import DomainSettings
from ckd.storage import corpus as stored
from ckd.storage.artifact import Artifact, Store
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.errors import UserError
from ckd.storage.lock import exclusive
from ckd.storage.parquet import read_table

from .conftest import INTERACTIONS, ITEMS, WRITERS, Writer
