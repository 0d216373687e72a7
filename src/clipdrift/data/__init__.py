"""Target and transfer data: named sets, loading, splits, prompts, and procedural images."""
