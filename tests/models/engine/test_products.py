"""Which library multiplies: measured with a clock that tells given times, kept for the machine, told in the log."""

import itertools
import json
import logging

import pytest
import torch

from workflow.jobs import cpu
from workflow.models.engine import products, reading

INTEL_LIKE = {"own": [5, 37, 60, 66], "onednn": [4, 30, 51, 75], "laid_out": [4, 33, 62, 76]}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the user's, and nothing measured in this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    products.rates.cache_clear()
    yield tmp_path / "tunecast"
    products.rates.cache_clear()


def clock(monkeypatch, seconds):
    """A clock that only products move, each by what `seconds` (way, rows) says."""
    now, laid_out = [0.0], []

    def lay_out(weight):
        laid_out.append(weight.clone())
        return laid_out[-1]

    def pass_time(way, rows):
        now[0] += seconds(way, len(rows))

    def product(rows, weight):
        pass_time("laid_out" if any(weight is one for one in laid_out) else "onednn", rows)

    monkeypatch.setattr(torch.nn.functional, "linear", lambda rows, weight: pass_time("own", rows))
    monkeypatch.setattr(products, "lay_out", lay_out)
    monkeypatch.setattr(products, "product", product)
    return lambda: now[0]


COST = {"own": 1e-3, "onednn": 2e-3, "laid_out": 4e-3}


def test_rates_are_operations_by_the_clock(monkeypatch):
    """A row takes 1, 2 and 4 ms: 2 x 512 x 512 operations each."""
    found = products.measured(clock(monkeypatch, lambda way, rows: COST[way] * rows))
    assert vars(found) == {way: pytest.approx([2 * 512 * 512 / seconds] * 4) for way, seconds in COST.items()}


@pytest.mark.parametrize("moment", [0, 100, 5000])
def test_a_pause_of_the_machine_decides_nothing(moment, monkeypatch):
    """A second that passes in one product."""
    calls = itertools.count()
    times = clock(monkeypatch, lambda way, rows: COST[way] * rows + (next(calls) == moment))
    assert products.measured(times).own == pytest.approx([2 * 512 * 512 / 1e-3] * 4)


def test_the_faster_library_is_chosen_for_each_number_of_rows():
    """oneDNN only where it is a tenth faster: nearest in logarithms to 512 rows, from 181 on."""
    found = products.Rates(*map(tuple, INTEL_LIKE.values()))
    assert [rows for rows in (1, 8, 64, 181, 182, 5000) if found.suits(rows)] == [182, 5000]
    assert [rows for rows in (1, 8, 64, 181, 182, 5000) if found.suits_laid_out(rows)] == [182, 5000]
    assert found.worth_laying_out and not products.NEVER.worth_laying_out


def test_a_machine_measures_once(cache, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="tunecast")
    measured = []
    monkeypatch.setattr(
        products, "measured", lambda: measured.append(1) or products.Rates(*map(tuple, INTEL_LIKE.values()))
    )
    first = products.rates()
    products.rates.cache_clear()  # as a second job
    assert products.rates() == first and measured == [1]
    [kept] = cache.glob("products-*.json")
    assert json.loads(kept.read_text())["own"] == INTEL_LIKE["own"]
    assert caplog.messages[0] == caplog.messages[1] and "fp32 products of 1 / 8 / 64 / 512 rows: " in caplog.messages[0]
    monkeypatch.setattr(cpu, "name", lambda: "another CPU")
    products.rates.cache_clear()
    assert products.rates() == first and measured == [1, 1]  # a home that machines share


@pytest.mark.parametrize("text", ["", "[]", '{"own": [1, 2]}', json.dumps(INTEL_LIKE | {"own": [0, 1, 1, 1]})])
def test_a_damaged_cache_is_measured_anew(text, cache, monkeypatch):
    found = products.Rates(*map(tuple, INTEL_LIKE.values()))
    monkeypatch.setattr(products, "measured", lambda: found)
    path = cache / f"products-{products._machine()}.json"
    path.parent.mkdir()
    path.write_text(text)
    assert products.rates() == found
    assert json.loads(path.read_text())["laid_out"] == INTEL_LIKE["laid_out"]


def test_without_a_home_each_job_measures(tmp_path, monkeypatch):
    """Neither a folder that cannot be written nor none at all is an error."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(products, "measured", lambda: products.NEVER)
    for home in (str(tmp_path / "file"), ""):
        products.rates.cache_clear()
        monkeypatch.setenv("XDG_CACHE_HOME", home)
        monkeypatch.setenv("HOME", "")
        assert products.rates() == products.NEVER
    products.rates.cache_clear()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("room", [True, False])
def test_layers_multiply_by_the_faster_library_with_the_same_result(room, monkeypatch):
    """Few rows by torch's own, many by oneDNN, both as in double precision."""
    monkeypatch.setattr(products, "rates", lambda: products.Rates((1.0,) * 4, (0.5, 0.5, 0.5, 2), (0.5, 0.5, 0.5, 2)))
    used, own = [], products.product
    monkeypatch.setattr(products, "product", lambda *given: used.append(len(given[0])) or own(*given))
    layer = torch.nn.Linear(96, 128)
    product = reading._product_of(layer, room)
    with torch.inference_mode():
        for rows in (4, 600):
            given = torch.randn(rows, 96)
            exact = given.double() @ layer.weight.double().T + layer.bias.double()
            assert product(given).double() == pytest.approx(exact, abs=1e-5)
    assert used == [600]
