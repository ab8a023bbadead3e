"""What a port promises, one suite a port: run over the tests' fake (unit tier) and over the real thing
(component tier), so that the two cannot drift apart.

A suite is a class without "Test" in front; whoever runs it derives from it and gives its fixture.
"""
