"""The samplers as their papers write them, in float64 and one image value at a time.

Written from the papers and not from the code: posteriors as products of densities, exponential
integrators as integrals of the polynomial through the known x_0. ``x_0(x, ab)`` is the network,
``path`` the alpha_bar of its calls and 1 at the end, ``noise(i)`` what step i adds.
"""

from __future__ import annotations

import itertools

import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)


def path_of(betas, steps):
    """alpha_bar at the timesteps of the calls, spaced "trailing" (Lin et al.), by whole numbers."""
    T = len(betas)
    alpha_bar = np.cumprod(1 - np.asarray(betas, np.float64))
    return [*(alpha_bar[round(T * k / steps) - 1] for k in range(steps, 0, -1)), 1.0]


def ddpm(x, x_0, path, noise, large=False):
    """Ho et al.: q(x_u | x_t, x_0) is q(x_t | x_u) q(x_u | x_0), two Gaussians in x_u."""
    for i, (now, then) in enumerate(itertools.pairwise(path)):
        guess = x_0(x, now)
        if then == 1:
            return guess
        a = now / then
        precision = a / (1 - a) + 1 / (1 - then)
        mean = (np.sqrt(a) / (1 - a) * x + np.sqrt(then) / (1 - then) * guess) / precision
        x = mean + np.sqrt(1 - a if large else 1 / precision) * noise(i)
    return x


def ddim(x, x_0, path, noise, eta=0.0):
    """Eq. 12 and 16 of Song et al., with the noise that belongs to the x_0 in use."""
    for i, (now, then) in enumerate(itertools.pairwise(path)):
        guess = x_0(x, now)
        sigma = eta * np.sqrt((1 - then) / (1 - now)) * np.sqrt(1 - now / then)
        e = (x - np.sqrt(now) * guess) / np.sqrt(1 - now)
        x = np.sqrt(then) * guess + np.sqrt(1 - then - sigma**2) * e
        x = x + sigma * noise(i) if sigma else x
    return x


def dpmpp(x, x_0, path, noise=None):
    """Algorithm 2 of Lu et al. (2M); the step to no noise is that of first order, which is x_0."""
    lam = [np.log(np.sqrt(ab / (1 - ab))) if ab < 1 else np.inf for ab in path]
    before = None
    for i, (now, then) in enumerate(itertools.pairwise(path)):
        guess = x_0(x, now)
        if then == 1:
            return guess
        h = lam[i + 1] - lam[i]
        D = guess
        if before is not None:
            r = (lam[i] - lam[i - 1]) / h
            D = (1 + 1 / (2 * r)) * guess - 1 / (2 * r) * before
        ratio = np.sqrt((1 - then) / (1 - now))
        x, before = ratio * x - np.sqrt(then) * (np.exp(-h) - 1) * D, guess
    return x


def unipc(x, x_0, path, noise=None):
    """UniPC-2 of Zhao et al., data prediction, B(h) = exp(-h) - 1.

    The predictor is that of ``dpmpp``. The corrector of second order integrates the parabola
    through x_0 at the last call, this one and the next; with two values, their mean.
    """
    lam = [np.log(np.sqrt(ab / (1 - ab))) if ab < 1 else np.inf for ab in path]
    guesses = []
    start = x
    for i, now in enumerate(path[:-1]):
        guesses.append(x_0(x, now))
        if path[i + 1] == 1:
            return guesses[-1]
        if i:
            x = _corrected(start, lam[max(i - 2, 0) : i + 1], guesses[-3:], path[i - 1], now)
        start, h = x, lam[i + 1] - lam[i]
        D = guesses[-1]
        if i:
            D = D + (guesses[-1] - guesses[-2]) / (lam[i] - lam[i - 1]) * h / 2
        ratio = np.sqrt((1 - path[i + 1]) / (1 - now))
        x = ratio * x - np.sqrt(path[i + 1]) * (np.exp(-h) - 1) * D
    return x


def _corrected(x, lam, guesses, before, now):
    """From the last call to this one: sigma_now times the integral of exp(lambda) x_0(lambda)."""
    ratio = np.sqrt((1 - now) / (1 - before))
    if len(guesses) == 2:
        h = lam[1] - lam[0]
        return ratio * x - np.sqrt(now) * (np.exp(-h) - 1) * (guesses[0] + guesses[1]) / 2
    first, last = lam[1], lam[2]
    places = (last - first) / 2 * NODES + (first + last) / 2
    integral = 0
    for m in range(3):  # Lagrange's polynomial of each value
        others = [lam[k] for k in range(3) if k != m]
        basis = np.prod([(places - o) / (lam[m] - o) for o in others], axis=0)
        weight = (last - first) / 2 * (WEIGHTS * np.exp(places) * basis).sum()
        integral = integral + weight * guesses[m]
    return ratio * x + np.sqrt(1 - now) * integral


def euler(x, x_0, path, noise=None, heun=False):
    """Algorithms 1 and 2 of Karras et al. without churn, s(t) = 1, sigma^2 = (1 - ab) / ab."""
    sigma = [np.sqrt((1 - ab) / ab) for ab in path]
    x = sigma[0] * x
    for now, then in itertools.pairwise(sigma):

        def slope(x, s):
            return (x - x_0(x / np.sqrt(s**2 + 1), 1 / (s**2 + 1))) / s

        d = slope(x, now)
        following = x + (then - now) * d
        if heun and then:
            following = x + (then - now) * (d + slope(following, then)) / 2
        x = following
    return x


def heun(x, x_0, path, noise=None):
    return euler(x, x_0, path, noise, heun=True)
