from collections import Counter
from pathlib import Path

from deploy.study.blinding import Blinding, edit_of
from deploy.study.manifest import Manifest
from tests.unit.deploy.study.benches import MODELS, gather


def test_a_restart_changes_no_order_and_no_name(bench: tuple[Path, list[str]], blinding: Blinding) -> None:
    material = gather(*bench)
    again = Blinding(Manifest.of(material, secret="of a test"), material)
    assert [(t.name, t.shown) for t in again.trials("ada")] == [(t.name, t.shown) for t in blinding.trials("ada")]
    assert again.pictures.keys() == blinding.pictures.keys()
    assert again.token == blinding.token


def test_orders_depend_on_participant_and_trial(blinding: Blinding) -> None:
    orders = [tuple(t.name for t in blinding.trials(f"p{i}")) for i in range(8)]
    assert len(set(orders)) > 4
    assert len({trial.shown for i in range(8) for trial in blinding.trials(f"p{i}")}) == 6
    assert all(sorted(order) == sorted(orders[0]) for order in orders)


def test_every_model_is_shown_at_every_place_equally_often(blinding: Blinding) -> None:
    shown = [trial.shown for i in range(600) for trial in blinding.trials(f"p{i}")]
    for place in range(3):
        counts = Counter(models[place] for models in shown)
        # 3000 draws of 1/3: five standard deviations are 129.
        assert all(abs(counts[model] - 1000) < 129 for model in MODELS)


def test_another_secret_has_no_name_in_common(bench: tuple[Path, list[str]], blinding: Blinding) -> None:
    material = gather(*bench)
    other = Blinding(Manifest.of(material), material)
    assert not other.pictures.keys() & blinding.pictures.keys()
    assert other.token != blinding.token
    assert Manifest.of(material).secret != Manifest.of(material).secret


def test_every_picture_has_a_name_of_its_own(blinding: Blinding) -> None:
    assert len(blinding.pictures) == 5 * (2 + len(MODELS))
    example = blinding.material.examples[0]
    assert blinding.pictures[blinding.picture(example, edit_of("okapi"))] == (example, "edit/okapi")
