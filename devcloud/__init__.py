"""A local Azure for laptops and tests: the product's own code talks to it through other endpoints.

Nothing in the product imports this package.
"""
