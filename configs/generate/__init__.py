"""How targets are generated: plans by name, for `fourm generate --plan=`."""
