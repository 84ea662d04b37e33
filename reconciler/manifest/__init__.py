"""Our notation: manifests in YAML or JSON, both ways, with every error at its line and column."""
