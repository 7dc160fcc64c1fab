"""The terms of training: what each is (`geometry`, `pictures`, `adversarial`), and which a stage has (`first`, `second`)."""
