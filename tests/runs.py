"""The smallest run of every model."""

# Model: a data set that suits, and the recipe fields that make a run of seconds.
RUNS = {
    "automap": ["mri_recon/phantom_tiny"],
    "critic": ["ct_recon/phantom_fbp_tiny", "crop=32", "base_filters=4", "levels=2"],
    "cyclegan": ["cbct_ct/phantom_tiny", "crop=32", "base_filters=4", "blocks=1",
                 "discriminator_filters=4"],
    "dcgan": ["lung_nodule/phantom_tiny", "base_filters=4", "conditional=true"],
    "encoder_decoder": ["brain_seg/phantom_tiny", "crop=32", "levels=3", "base_filters=4"],
    "learned_primal_dual": ["ct_recon/phantom_tiny", "iterations=2", "filters=4", "start=fbp"],
    "pggan": ["mammo/phantom_tiny", "resolution=8", "fmap_base=64", "fmap_max=8", "latent=8"],
    "pix2pix": ["ldct/phantom_tiny", "crop=32", "levels=4", "base_filters=4",
                "discriminator_filters=4"],
    "srcnn": ["sr/phantom_tiny"],
    "srgan": ["sr/phantom_tiny", "crop=32", "base_filters=4", "blocks=1", "discriminator_filters=4",
              "pretrain_steps=2"],
    "unit": ["mri_contrast/phantom_tiny", "crop=32", "base_filters=4", "blocks=1",
             "discriminator_filters=4"],
    "varnet": ["mri_recon/phantom_tiny", "cascades=2", "base_filters=4", "levels=2"],
}  # fmt: skip
