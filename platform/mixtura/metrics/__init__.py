"""Measures of results: `control` (success rates, intervals, action errors) and `image` (PSNR, SSIM; imports torch)."""
