"""MNIST as tensors, its split, and what is said where it is missing or damaged."""

import shutil
import socket

import pytest
import torch

from digitnet.mnist import DISPUTED, VALIDATION, DataError, load_mnist, split


def test_split_is_seeded_disjoint_and_whole():
    digits, labels = torch.arange(60_000), torch.arange(60_000)
    (kept, _), (held, _) = split(digits, labels, seed=3)
    assert len(held) == VALIDATION == 5_000 and len(kept) == 55_000
    assert set(kept.tolist()) | set(held.tolist()) == set(range(60_000))
    assert torch.equal(split(digits, labels, seed=3)[1][0], held)
    assert not torch.equal(split(digits, labels, seed=4)[1][0], held)


def test_the_test_set(mnist_test):
    digits, labels = mnist_test
    assert digits.shape == (10_000, 28, 28) and digits.dtype == torch.uint8
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert len(set(DISPUTED)) == 15 and max(DISPUTED) < 10_000


def test_without_network_and_data_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(DataError, match="DIGITNET_DATA") as refusal:
        load_mnist(tmp_path, train=True)
    assert "\n" not in str(refusal.value) and str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_a_damaged_file_is_named(tmp_path, mnist_root, harm):
    shutil.copytree(mnist_root / "MNIST", tmp_path / "MNIST", copy_function=shutil.copyfile)
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content[:-1] if harm == "cut" else content)
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is damaged"):
        load_mnist(tmp_path, train=False)
