import pytest
import torch

from transformer_theatre.recipes.noam import noam_rate, noam_schedule


def test_rate_is_equation_3():
    assert noam_rate(1, 512, 4000) == pytest.approx(512**-0.5 * 4000**-1.5)
    assert noam_rate(4000, 512, 4000) == pytest.approx((512 * 4000) ** -0.5)
    assert noam_rate(16_000, 512, 4000, factor=2.0) == pytest.approx(2 * (512 * 16_000) ** -0.5)
    rates = [noam_rate(step, 512, 4000) for step in range(1, 8001)]
    assert max(rates) == rates[3999]


def test_first_update_is_step_1_whatever_the_optimizers_rate():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.37)
    schedule = noam_schedule(optimizer, d_model=64, warmup=5, factor=3.0)
    for step in range(1, 12):
        before = weight.item()
        weight.grad = torch.ones(1)
        optimizer.step()
        schedule.step()
        assert before - weight.item() == pytest.approx(noam_rate(step, 64, 5, 3.0), rel=1e-5)


def test_a_schedule_that_goes_on_is_where_it_was():
    def fresh():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        return optimizer, noam_schedule(optimizer, 64, 5, 1.0)

    optimizer, schedule = fresh()
    for _ in range(7):
        optimizer.step()
        schedule.step()
    again, resumed = fresh()
    again.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    again.step()
    optimizer.step()
    resumed.step()
    schedule.step()
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == pytest.approx(noam_rate(9, 64, 5))
