"""The three networks of iFlyBot-VLA: vision-language model, action expert, latent action model."""
