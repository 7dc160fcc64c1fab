"""From a user's file to a saved result: pictures and prompts in, Gaussians, meshes and clips out (`files.infer_files`)."""
