from dataclasses import replace

from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.study.jobs import AttackJob, TrainJob, central_jobs, expand, model_job, utility_jobs

STRONG = Choice("dpsgd", {"noise_multiplier": 4.0}, label="strong")


def study(*scenarios: Scenario, utility: bool = True, seeds: tuple[int, ...] = (0, 1)) -> Study:
    return Study("s", scenarios, utility=utility, seeds=seeds, federation=Federation(rounds=7))


FRESH = Scenario(
    "fresh",
    targets=3,
    defenses=(Choice("none"), STRONG),
    attacks=(Choice("one"), Choice("two")),
)


def test_grid_and_controls() -> None:
    cells = [job.cell for job in expand(study(FRESH)) if isinstance(job, AttackJob)]
    by_role = {
        role: [c for c in cells if c.role == role]
        for role in ("audit", "half_steps", "prior_only", "update_noise", "noise")
    }
    assert len(by_role["audit"]) == 2 * 2 * 3 * 2
    assert {c.key for c in by_role["prior_only"]} == {
        c.key.replace("--audit--", "--prior_only--") for c in by_role["audit"]
    }
    assert {c.key for c in by_role["half_steps"]} == {
        c.key.replace("--audit--", "--half_steps--")
        for c in by_role["audit"]
        if c.target < 2 and c.seed == 0
    }
    assert {(c.defense, c.attack, c.target, c.seed) for c in by_role["update_noise"]} == {
        ("none", attack, target, 0) for attack in ("one", "two") for target in (0, 1)
    }
    assert [(c.target, c.seed, c.attack) for c in by_role["noise"]] == [
        (t, 0, "noise") for t in range(3)
    ]
    assert len({c.key for c in cells}) == len(cells)


def test_something_of_everything_comes_first() -> None:
    other = Scenario("other", targets=1, attacks=(Choice("one"),), controls=False)
    cells = [job.cell for job in expand(study(FRESH, other)) if isinstance(job, AttackJob)]
    targets = [cell.target for cell in cells]
    assert targets == sorted(targets)
    first = [c for c in cells if c.target == 0]
    assert {c.scenario for c in first} == {"fresh", "other"}
    assert {c.role for c in first} == {"audit", "half_steps", "prior_only", "update_noise", "noise"}


def test_models_are_shared_and_come_first() -> None:
    late = Scenario("late", round=4, defenses=(STRONG,), attacks=(Choice("one"),), targets=1)
    # The same settings by another label, and other settings by the same label.
    same = Choice("dpsgd", {"noise_multiplier": 4.0}, label="again")
    differs = Scenario(
        "differs", defenses=(Choice("dpsgd", {"noise_multiplier": 1.0}, label="strong"), same)
    )
    jobs = expand(study(FRESH, late, differs))
    trained = [job for job in jobs if isinstance(job, TrainJob)]
    assert jobs[: len(trained)] == tuple(trained)
    assert [(j.defense.name, dict(j.defense.settings), j.rounds) for j in trained] == [
        ("dpsgd", {"noise_multiplier": 4.0}, 3),
        *[("none", {}, 7)] * 3,
        *[("dpsgd", {"noise_multiplier": 4.0}, 7)] * 3,
        *[("dpsgd", {"noise_multiplier": 1.0}, 7)] * 3,
        *[("none", {}, 7)] * 3,
    ]
    assert [j.seed for j in trained] == [0] + [0, 1, 2] * 4
    assert len({j.key for j in trained}) == len(trained)
    needs = {j.cell.scenario: j.needs for j in jobs if isinstance(j, AttackJob)}
    assert needs == {"fresh": (), "late": (trained[0].key,), "differs": ()}
    model = model_job(study(late), late, STRONG)
    assert model == trained[0]
    assert model_job(study(FRESH), FRESH, STRONG) is None
    assert utility_jobs(study(FRESH), FRESH, STRONG) == tuple(trained[4:7])
    central = central_jobs(study(FRESH), FRESH)
    assert central == tuple(trained[-3:])
    assert (central[0].method.name, central[0].federation.clients) == ("fedavg", 1)
    assert central[0].federation.training.steps == 5 * trained[1].federation.training.steps


def test_what_nothing_defends_is_no_trade() -> None:
    bare = Scenario("bare", network=Choice("small_cnn"), attacks=(Choice("one"),))
    trained = [job for job in expand(study(FRESH, bare)) if isinstance(job, TrainJob)]
    assert {job.network.name for job in trained} == {"face"}


def test_no_utility_no_training() -> None:
    assert not any(isinstance(job, TrainJob) for job in expand(study(FRESH, utility=False)))


def test_keys_are_file_names() -> None:
    odd = Choice("my.package.attacks:Attack" * 9)
    job = utility_jobs(study(FRESH), replace(FRESH, network=odd), STRONG)[0]
    assert len(job.key) < 200
    assert not set(job.key) & set("/:\\ ")
