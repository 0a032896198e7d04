"""Programs of ten lines that run in the folder of an export; some with fields to be filled in."""

ONNX = """\
import numpy as np
import onnxruntime
import pyarrow.parquet as pq

ids = pq.read_table("items.parquet")["item_id"].to_pylist()  # in order of code
session = onnxruntime.InferenceSession("model.onnx")
history = ids[:{length}]  # oldest first
codes = np.array([[ids.index(item) for item in history]])
given = {{"items": codes, "lengths": np.array([len(history)])}}
{rest}
"""
SCORES = """\
(scores,) = session.run(["scores"], given)
for code in np.argsort(-scores[0], kind="stable")[:5]:
    print(ids[code], scores[0, code])"""
BEST = """\
best, scores = session.run(["best_items", "best_scores"], given)
for code, score in zip(best[0], scores[0]):
    print(ids[code], score)"""

WEIGHTS = """\
import torch
from ckd.stages.export.weights import load_export

student, items = load_export("."{domain})  # digests are checked
ids = items["item_id"].to_pylist()  # in order of code
history = ids[:{length}]  # oldest first
codes = torch.tensor([[ids.index(item) for item in history]])
with torch.inference_mode():
    scores = student(codes, torch.tensor([len(history)]))[0]
for code in scores.argsort(descending=True, stable=True)[:5].tolist():
    print(ids[code], float(scores[code]))
"""

INDEX = """\
import faiss
import torch
from ckd.stages.export.weights import load_export

student, items = load_export("."{domain})  # digests are checked
ids = items["item_id"].to_pylist()  # in order of code
history = ids[:{length}]  # oldest first
codes = torch.tensor([[ids.index(item) for item in history]])
with torch.inference_mode():
    query = student.query(codes, torch.tensor([len(history)])).numpy()
scores, best = faiss.read_index("index.faiss").search(query, 5)
for code, score in zip(best[0], scores[0]):
    print(ids[code], score)
"""


ONNX_OF_USERS = """\
import numpy as np
import onnxruntime
import pyarrow.parquet as pq

ids = pq.read_table("items.parquet")["item_id"].to_pylist()  # in order of code
users = pq.read_table("users.parquet")["user_id"].to_pylist()
session = onnxruntime.InferenceSession("model.onnx")
behind = np.array([[ids.index(ids[0])]])  # items that are not to come first
given = {{"users": np.array([users.index(users[0])]), "items": behind, "lengths": np.array([1])}}
{rest}
"""

WEIGHTS_OF_USERS = """\
import pyarrow.parquet as pq
import torch
from ckd.stages.export.weights import load_export

student, items = load_export(".")  # digests are checked
ids = items["item_id"].to_pylist()  # in order of code
users = pq.read_table("users.parquet")["user_id"].to_pylist()
behind = torch.tensor([[ids.index(ids[0])]])  # items that are not to come first
with torch.inference_mode():
    scores = student(torch.tensor([users.index(users[0])]), behind, torch.tensor([1]))[0]
for code in scores.argsort(descending=True, stable=True)[:5].tolist():
    print(ids[code], float(scores[code]))
"""

INDEX_OF_USERS = """\
import faiss
import pyarrow.parquet as pq
from ckd.stages.export.weights import load_export

student, items = load_export(".")  # digests are checked
ids = items["item_id"].to_pylist()  # in order of code
users = pq.read_table("users.parquet")["user_id"].to_pylist()
query = student.query([users.index(users[0])]).numpy()
behind = {ids[0]}  # items that are not to be recommended
scores, best = faiss.read_index("index.faiss").search(query, 5 + len(behind))
found = [(ids[code], score) for code, score in zip(best[0], scores[0]) if ids[code] not in behind]
for item, score in found[:5]:
    print(item, score)
"""
