"""Recipes whose generator is an INR, a row each; train.py adds them to those of training/presets.py, where the form is explained."""

PRESETS = {
    'inr': dict(
        summary='INR-GAN: FMM decoder on the StyleGAN2 mapping network',
        source="paper, appendix A ('additional ablations'), and the authors' public runs; FFHQ 256: FID 9.57 (paper)",
        cost='256: 25,000 kimg at 15 GMAC an image in G alone, days on a data-centre GPU; a CPU can look, not finish',
        G='inr.generator.Generator', z_dim=512, w_dim=512, mapping_layers=2, synthesis=dict(fmm_rank=10, squash='demod'),
        g_channel_base=32768, g_channel_max=512, g_fp16_res=0,
        d_channel_base=32768, d_channel_max=512, d_fp16_res=4, conv_clamp=256, mbstd_group=4,
        batch={16: 64, 256: 32, 1024: 16}, g_lr={16: 0.0025, 1024: 0.002}, d_lr={16: 0.0025, 1024: 0.002}, betas=(0, 0.99), eps=1e-8,
        gamma=10, r1_interval=16, pl_weight=0, g_reg_interval=4, style_mixing=0,
        ema_kimg='auto', ema_rampup=0.05, kimg=25000, mirror=True,
    ),
    'inr-tiny': dict(
        summary='the same decoder, small enough to watch it learn on a CPU',
        source='own, chosen by runs on the demo set; see docs/decisions.md',
        cost='32 or 64 pixels: minutes on two cores until coloured shapes form',
        G='inr.generator.Generator', z_dim=128, w_dim=128, mapping_layers=2,
        synthesis=dict(fmm_rank=10, squash='demod', input_features=dict(random=96, raw=True, scale=4.0),
                       features=dict(random=32, raw=True, scale=4.0)),
        g_channel_base=2048, g_channel_max=64, g_fp16_res=0,
        d_channel_base=1024, d_channel_max=128, d_fp16_res=0, conv_clamp=None, mbstd_group=4,
        batch=16, g_lr=0.004, d_lr=0.004, betas=(0, 0.99), eps=1e-8,
        gamma=1, r1_interval=16, pl_weight=0, g_reg_interval=1, style_mixing=0,
        ema_kimg='auto', ema_rampup=0.05, kimg=1000, mirror=True,
    ),
}  # fmt: skip
