import itertools
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from aeverse import train
from aeverse.train import Samples, Schedule


class Bowl(torch.nn.Module):
    """Its loss is least at the mean of the batches."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))

    def loss(self, batch):
        return (self.weight - batch).square().sum()


def _ones():
    return itertools.repeat(torch.ones(3))


def _schedule(**changes):
    return Schedule(**{"n_steps": 40, "judge_every": 5, "learning_rate": 0.1, **changes})


def test_training_learns_and_says_how():
    bowl = Bowl()
    history = train.train(bowl, _ones(), lambda: -bowl.loss(torch.ones(3)).item(), _schedule())
    assert history["step"] == list(range(5, 41, 5))
    assert len(history["loss"]) == len(history["heldout"]) == 8
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    assert bowl.weight.detach().numpy() == pytest.approx(1, abs=0.2)
    assert not bowl.training
    assert bowl.weight.requires_grad


def test_a_last_stretch_that_is_shorter_is_judged_too():
    bowl = Bowl()
    history = train.train(bowl, _ones(), lambda: -bowl.loss(torch.ones(3)).item(), _schedule(n_steps=12))
    assert history["step"] == [5, 10, 12]


def test_early_stop_restores_the_best_weights():
    bowl, seen = Bowl(), []
    scores = iter([1.0, 3.0, 2.0, 2.5, 2.9, 100.0])

    def judge():
        seen.append(bowl.weight.detach().clone())
        return next(scores)

    history = train.train(bowl, _ones(), judge, _schedule(patience=3))
    assert history["heldout"] == [1.0, 3.0, 2.0, 2.5, 2.9]
    assert torch.equal(bowl.weight, seen[1])
    assert not torch.equal(seen[1], seen[4])


def test_a_start_that_is_kept_is_step_0_of_the_history():
    bowl, scores = Bowl(), itertools.chain([3.0], itertools.cycle([1.0, 2.0]))
    start = bowl.weight.detach().clone()
    history = train.train(bowl, _ones(), lambda: next(scores), _schedule(keep_start=True, patience=9))
    assert history["step"][0] == 0
    assert np.isnan(history["loss"][0])
    assert history["heldout"][:3] == [3.0, 1.0, 2.0]
    assert torch.equal(bowl.weight, start)


def test_the_judge_sees_averaged_weights_and_training_goes_on_with_the_present_ones():
    averaged, plain = Bowl(), Bowl()
    batches = [torch.full((3,), 10.0 * (-1) ** i) for i in range(40)]  # the weights swing, their average less
    judged = {}
    for name, bowl, decay in (("averaged", averaged, 0.99), ("plain", plain, 0.0)):
        values = judged[name] = []
        schedule = _schedule(average=decay, learning_rate=1.0, patience=100, judge_every=1)
        losses = train.train(
            bowl, iter(batches), lambda b=bowl, v=values: v.append(b.weight[0].item()) or 0.0, schedule
        )["loss"]
        judged[name + " loss"] = losses
    assert np.std(np.diff(judged["averaged"])) < 0.5 * np.std(np.diff(judged["plain"]))
    assert judged["averaged loss"] == pytest.approx(judged["plain loss"])


def _then_raise(error, after):
    for i in itertools.count():
        if i == after:
            raise error
        yield torch.ones(3)


@pytest.mark.parametrize("where", ["batches", "judge"])
def test_an_interrupt_keeps_the_best_weights_with_a_warning(where):
    bowl, seen = Bowl(), []

    def judge():
        if where == "judge" and len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(bowl.weight.detach().clone())
        return [1.0, 5.0, 2.0][len(seen) - 1]

    batches = _then_raise(KeyboardInterrupt(), 17) if where == "batches" else _ones()
    with pytest.warns(UserWarning, match="Training was interrupted; the best weights so far are kept"):
        history = train.train(bowl, batches, judge, _schedule())
    assert history["heldout"] == [1.0, 5.0, 2.0]
    assert torch.equal(bowl.weight, seen[1])


def test_an_interrupt_before_the_first_judgment_is_passed_on():
    with pytest.raises(KeyboardInterrupt):
        train.train(Bowl(), _then_raise(KeyboardInterrupt(), 3), lambda: 0.0, _schedule())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_best_weights(value):
    bowl, seen = Bowl(), []
    batches = itertools.chain([torch.ones(3)] * 12, itertools.repeat(torch.full((3,), value)))

    def judge():
        seen.append(bowl.weight.detach().clone())
        return float(len(seen))

    with pytest.warns(UserWarning, match="the loss is not finite"):
        train.train(bowl, batches, judge, _schedule())
    assert torch.equal(bowl.weight, seen[-1])
    assert torch.isfinite(bowl.weight).all()
    with pytest.raises(FloatingPointError, match="the loss is not finite"):
        train.train(Bowl(), itertools.repeat(torch.full((3,), value)), lambda: 0.0, _schedule())


def test_a_score_that_is_not_finite_is_no_best_score():
    with pytest.raises(FloatingPointError, match="held-out score is not finite"):
        train.train(Bowl(), _ones(), lambda: float("nan"), _schedule())
    scores = iter([1.0, float("nan")])
    with pytest.warns(UserWarning, match="held-out score is not finite"):
        history = train.train(Bowl(), _ones(), lambda: next(scores), _schedule())
    assert history["heldout"] == [1.0]


def test_training_does_not_touch_global_random_states(random_states):
    before = random_states()
    train.train(Bowl(), _ones(), lambda: 0.0, _schedule())
    assert random_states() == before


# ---- batches ---------------------------------------------------------------------------------------------------
@given(n=st.integers(1, 50), size=st.integers(1, 60), seed=st.integers(0, 99), dense=st.booleans())
def test_a_pass_gives_every_sample_once(n, size, seed, dense):
    x = np.arange(1, 2 * n + 1, dtype=np.float32).reshape(n, 2)
    samples = Samples(x if dense else sp.csr_matrix(x), library=x.sum(1), covariate=x)
    batches = itertools.islice(samples.shuffled(np.random.default_rng(seed), size), samples.n_batches(size))
    parts = [(b.x if dense else b.x.to_dense(), b.library, b.covariate) for b in batches]
    order = torch.cat([p[0] for p in parts])[:, 0].numpy()
    assert sorted(order) == list(x[:, 0])
    assert all(len(p[0]) >= min(size, n) for p in parts)
    for values, library, covariate in parts:
        assert torch.equal(values.sum(1, keepdim=True), library)
        assert torch.equal(values, covariate)


def test_the_encoder_may_read_some_features_only():
    x = sp.csr_matrix(np.arange(12.0).reshape(3, 4))
    batch = Samples(x, input_features=np.array([2, 0])).batch(slice(1, 3))
    assert torch.equal(batch.x.to_dense(), torch.tensor([[6.0, 4], [10, 8]]))
    assert torch.equal(batch.target.to_dense(), torch.tensor(x.toarray()[1:], dtype=torch.float32))
    assert batch.library is None


# ---- splits ----------------------------------------------------------------------------------------------------
@given(seed=st.integers(0, 10**6), p=st.floats(0.01, 0.99))
def test_split_molecules_loses_none(seed, p):
    x = sp.csr_matrix(np.random.default_rng(seed).poisson(2.0, (8, 6)).astype(np.float32))
    kept, rest = train.split_molecules(x, p, np.random.default_rng(seed))
    assert ((kept + rest) != x).nnz == 0
    assert all((part.data > 0).all() and (part.data == np.rint(part.data)).all() for part in (kept, rest))


def test_split_entries_are_complementary():
    x = np.arange(2000.0).reshape(40, 50)
    kept, rest = train.split_entries(x, 0.3, np.random.default_rng(0))
    assert (np.isnan(kept) ^ np.isnan(rest)).all()
    assert (np.where(np.isnan(kept), rest, kept) == x).all()
    assert np.isnan(rest).mean() == pytest.approx(0.3, abs=0.05)


def test_training_is_silent_under_tests(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train.train(Bowl(), _ones(), lambda: 0.0, _schedule())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_learns_where_gradients_are_switched_off(mode):
    bowl, usual = Bowl(), Bowl()
    train.train(usual, _ones(), lambda: 0.0, _schedule())
    with mode():
        train.train(bowl, _ones(), lambda: 0.0, _schedule())
        assert not torch.is_grad_enabled()
    assert torch.equal(bowl.weight, usual.weight)
    assert not torch.equal(bowl.weight, torch.zeros(3))


def test_batches_carry_the_generator():
    samples, generator = Samples(np.ones((4, 2), np.float32)), torch.Generator().manual_seed(0)
    batch = next(samples.shuffled(np.random.default_rng(0), 4, generator))
    assert batch.generator is generator
    assert batch.part(0, 2).generator is generator
    assert next(samples.shuffled(np.random.default_rng(0), 4)).generator is None


def _rates(schedule, last):
    return [schedule.rate(step, last) for step in range(1, last + 1)]


def test_the_learning_rate_stays_until_scores_rise_no_more_and_then_falls_to_nothing():
    scores = itertools.chain(map(float, range(8)), itertools.repeat(7.0))
    schedule = _schedule(n_steps=1000, cycle=40, patience=3)
    history = train.train(Bowl(), _ones(), lambda: next(scores), schedule)
    waited = 5 * (8 + 3)
    assert history["step"][-1] == waited + schedule.falling
    rates = _rates(schedule, history["step"][-1])
    assert rates[: schedule.rising] == sorted(rates[: schedule.rising])
    assert set(np.round(rates[schedule.rising : waited], 9)) == {0.1}
    assert rates[waited:] == sorted(rates[waited:], reverse=True)
    assert rates[-1] < 0.01 * max(rates)


@pytest.mark.parametrize("n_steps", [1, 2, 7, 40, 41, 100])
def test_the_learning_rate_falls_in_time_for_the_last_step(n_steps):
    scores = itertools.count()
    schedule = _schedule(n_steps=n_steps, cycle=40)
    assert train.train(Bowl(), _ones(), lambda: float(next(scores)), schedule)["step"][-1] == n_steps
    rates = _rates(schedule, n_steps)
    assert all(0 < rate <= 0.1 for rate in rates)
    if n_steps > 10:
        assert max(rates) > 0.095
        assert rates[-1] < 0.001


def test_what_is_better_by_less_than_min_delta_is_kept_but_not_waited_for():
    bowl, seen, scores = Bowl(), [], itertools.count()

    def judge():
        seen.append(bowl.weight.detach().clone())
        return 0.01 * next(scores)

    history = train.train(bowl, _ones(), judge, _schedule(patience=3, min_delta=1.0))
    assert history["step"][-1] < 40
    assert torch.equal(bowl.weight, seen[-1])


def test_a_callback_sees_the_history_and_ends_training():
    told = []

    def callback(history):
        told.append(history)
        return len(history["step"]) == 3

    history = train.train(Bowl(), _ones(), lambda: 1.0 * len(told), _schedule(), callback=callback)
    assert [h["step"] for h in told] == [[5], [5, 10], [5, 10, 15]]
    assert history == told[-1]
