"""Where posed pictures come from: folders, published data sets, meshes, and a generator of furniture."""
