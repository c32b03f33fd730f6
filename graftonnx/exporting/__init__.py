"""Write the deployable file of a trained network."""

from graftonnx.exporting.deploying import Export, export

__all__ = ["Export", "export"]
