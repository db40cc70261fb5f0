package org.example.app

import android.content.ContentResolver
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import dev.bolmo.Checkpoint
import dev.bolmo.Tokenizer
import dev.bolmo.Weights
import java.io.Closeable
import java.io.FileInputStream
import java.io.FileNotFoundException
import java.io.IOException

/** A model in a folder that was picked with ACTION_OPEN_DOCUMENT_TREE. Stays open until the model is loaded. */
class PickedFolder(private val resolver: ContentResolver, tree: Uri) : Closeable {
    private val opened = mutableListOf<Closeable>()

    private val documents: Map<String, Uri> = buildMap {
        val folder = DocumentsContract.getTreeDocumentId(tree)
        val children = DocumentsContract.buildChildDocumentsUriUsingTree(tree, folder)
        val columns = arrayOf(Document.COLUMN_DISPLAY_NAME, Document.COLUMN_DOCUMENT_ID)
        resolver.query(children, columns, null, null, null)?.use {
            while (it.moveToNext()) {
                put(it.getString(0), DocumentsContract.buildDocumentUriUsingTree(tree, it.getString(1)))
            }
        }
    }

    fun checkpoint(): Checkpoint = Checkpoint.open(
        config = bytes("config.json") ?: throw FileNotFoundException("the folder has no config.json"),
        weights = documents.keys.filter { it.endsWith(".safetensors") }.map { Weights.channel(it, open(it).channel) },
        tokenizer = bytes("tokenizer.json")?.let { Tokenizer.Contents(it, bytes("tokenizer_config.json")) },
    )

    private fun bytes(name: String): ByteArray? = if (name in documents) open(name).readBytes() else null

    private fun open(name: String): FileInputStream {
        val descriptor = resolver.openFileDescriptor(documents.getValue(name), "r")
            ?: throw IOException("the provider of $name has crashed")
        val stream = ParcelFileDescriptor.AutoCloseInputStream(descriptor).also { opened += it }
        // Documents of some cloud services are pipes.
        if (descriptor.statSize < 0) throw IOException("$name is not a file: download the folder first")
        return stream
    }

    override fun close() = opened.forEach { it.close() }
}
