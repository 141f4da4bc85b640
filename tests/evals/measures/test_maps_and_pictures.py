"""Numbers of maps, joints and pictures by hand; what is not valid does not count."""

import numpy as np
import pytest

from fourm_jax.evals import measure
from fourm_jax.evals.measures import codebook_usage, feature_distances, joint_error
from fourm_jax.tokenizers.signal import Signal

CLASSES = Signal(axes="hw", dtype="uint8", kind="classes", num_classes=3)


def test_pixel_accuracy_and_miou_leave_out_what_is_ignored():
    truth = np.array([[[0, 1, 255]], [[1, 1, 255]]])
    predicted = np.array([[[0, 0, 2]], [[1, 1, 2]]])
    accuracy = measure.load("pixel_accuracy:ignored=255", CLASSES)
    assert accuracy.score(predicted, truth) == 3 / 4
    miou = measure.load("miou:ignored=255", CLASSES)
    # class 0: 1 of 2; class 1: 2 of 3; class 2 does not occur
    assert miou.score(predicted, truth) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert miou.per_class(predicted, truth).tolist()[:2] == [1 / 2, pytest.approx(2 / 3)]
    assert np.isnan(miou.per_class(predicted, truth)[2])


def test_a_class_that_does_not_exist_is_named():
    for name in ("miou", "pixel_accuracy"):
        with pytest.raises(ValueError, match=r"true class 7, allowed: 0\.\.2"):
            measure.load(name, CLASSES).score(np.array([[[0]]]), np.array([[[7]]]))


def test_the_parts_of_an_additive_measure_give_its_score():
    rng = np.random.default_rng(0)
    truth, predicted = (rng.integers(0, 3, (4, 2, 5)) for _ in range(2))
    for name in ("miou", "pixel_accuracy"):
        own = measure.load(name, CLASSES)
        assert isinstance(own, measure.Additive)
        parts = list(own.parts(predicted, truth))
        assert own.total(parts) == own.score(predicted, truth)
        assert own.total(parts[:2]) == own.score(predicted[:2], truth[:2])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("psnr", (4, 3, 5, 3)),
        ("mse", (4, 7)),
        ("mae", (4, 3, 5)),
        ("f1", (4, 3, 5)),
        ("angular_error", (4, 3, 5, 3)),
        ("angular_error:statistic=median", (4, 3, 5, 3)),
    ],
)
def test_the_parts_of_maps_give_the_score_of_any_of_them(name, shape):
    rng = np.random.default_rng(0)
    truth, predicted = (rng.normal(size=shape) for _ in range(2))
    if name == "psnr":
        truth, predicted = (rng.integers(0, 256, shape).astype(np.uint8) for _ in range(2))
    own = measure.load(name, Signal(axes="hw", kind="binary", low=-1, high=1))
    parts = own.parts(predicted, truth)
    for rows in ([0, 1, 2, 3], [2, 2, 0]):
        expected = own.score(predicted[rows], truth[rows])
        assert own.total([parts[row] for row in rows]) == pytest.approx(expected, rel=1e-12)
    one_for_all = own.total(own.parts(predicted[:1], truth))
    assert one_for_all == pytest.approx(own.score(predicted[:1], truth), rel=1e-12)


def test_depth_errors_by_hand():
    truth = np.array([[[1.0, 2.0, 4.0, 0.0, np.nan]]])
    predicted = np.array([[[1.1, 2.0, 2.0, 9.0, 9.0]]])
    abs_rel = measure.load("depth_error")
    assert abs_rel.score(predicted, truth) == pytest.approx((0.1 + 0 + 0.5) / 3)
    delta = measure.load("depth_error:metric=delta1")
    assert delta.higher_is_better and delta.score(predicted, truth) == pytest.approx(2 / 3)
    rmse = measure.load("depth_error:metric=rmse,unit=m")
    assert rmse.score(predicted, truth) == pytest.approx(np.sqrt((0.01 + 0 + 4) / 3))
    assert (rmse.metric, rmse.unit) == ("rmse", "m")


def test_alignment_forgives_a_scale_and_a_shift_of_each_picture():
    truth = np.array([[[1.0, 2.0, 4.0]], [[3.0, 5.0, 6.0]]])
    predicted = np.stack([2 * truth[0] + 1, 0.5 * truth[1] - 1])
    aligned = measure.load("depth_error:metric=rmse,align")
    assert aligned.metric == "rmse_aligned"
    assert aligned.score(predicted, truth) == pytest.approx(0, abs=1e-12)
    assert measure.load("depth_error:metric=rmse").score(predicted, truth) > 1


def test_the_median_angle_and_normals_that_are_not_there():
    x, y, zero = [1.0, 0, 0], [0, 1.0, 0], [0.0, 0, 0]
    truth, predicted = np.array([[x, x, x, zero]]), np.array([[x, x, y, y]])
    assert measure.load("angular_error").score(predicted, truth) == pytest.approx(30)
    median = measure.load("angular_error:statistic=median")
    assert median.score(predicted, truth) == 0 and median.metric == "median_angular_error_deg"
    with pytest.raises(ValueError, match="unknown statistic 'mode'"):
        measure.load("angular_error:statistic=mode")


def test_joint_errors_by_hand():
    truth = np.array([[[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [np.nan, 0, 0]]])
    moved = np.nan_to_num(truth) + np.array([0.0, 0, 2])
    assert measure.load("joint_error").score(moved, truth) == pytest.approx(2)
    assert measure.load("joint_error:root=0").score(moved, truth) == pytest.approx(0)
    turned = np.nan_to_num(truth) @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) * 3 + 1
    own = measure.load("joint_error:align")
    assert own.metric == "pa_mpjpe"
    assert own.score(turned, truth) == pytest.approx(0, abs=1e-9)


def test_a_mirror_is_no_turn():
    target = np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 5]])
    mirrored = target * [1, 1, -1]
    found = joint_error.procrustes(mirrored, target, np.ones(4, bool))
    assert np.linalg.norm(found - target) > 1


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics", reason="no scikit-image")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    noisy = np.clip(truth + rng.integers(-40, 40, truth.shape), 0, 255).astype(np.uint8)
    _, whole = metrics.structural_similarity(
        truth,
        noisy,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        full=True,
    )
    ssim = measure.load("ssim")
    assert ssim.score(noisy[None], truth[None]) == pytest.approx(whole[5:-5, 5:-5].mean())
    assert ssim.score(truth[None], truth[None]) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim.score(truth[None, :8], truth[None, :8])


def test_frechet_distance_of_shifted_and_scaled_gaussians():
    rows = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]])
    assert feature_distances.frechet(rows, rows) == pytest.approx(0)
    assert feature_distances.frechet(rows, rows + np.array([3.0, 4])) == pytest.approx(25)
    # covariances (2/3) I and 4 (2/3) I: 2 (2/3) (1 + 4 - 2 · 2)
    assert feature_distances.frechet(rows, 2 * rows) == pytest.approx(4 / 3)
    with pytest.raises(ValueError, match="1 and 4 rows, at least 2"):
        feature_distances.frechet(rows[:1], rows)


def test_kernel_distance_by_hand():
    ones, zeros = np.ones((2, 1)), np.zeros((2, 1))
    # (1 + 1)³ = 8 among ones, 1 among zeros and between both
    assert feature_distances.kernel(ones, zeros) == pytest.approx(8 + 1 - 2 * 1)


def test_codebook_usage_and_perplexity():
    assert codebook_usage.usage(np.array([0, 0, 1]), 4) == 0.5
    assert codebook_usage.perplexity(np.array([[0, 1], [2, 3]]), 4) == pytest.approx(4)
    assert codebook_usage.perplexity(np.array([2, 2]), 4) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"id 4, allowed: 0\.\.3"):
        codebook_usage.usage(np.array([4]), 4)


def test_a_pose_whose_root_is_not_there_does_not_count():
    seen = np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0]])
    truth = np.stack([seen, np.where(np.eye(3)[0][:, None], np.nan, seen)])
    for name in ("joint_error:root=0", "joint_error:root=0,align"):
        assert measure.load(name).score(truth[:1] + 1, truth) == pytest.approx(0, abs=1e-9)
